// Load for the whole edge: Envoy of `make demo`, which asks tollgate, which asks Redis. Not part of the tests.
//
//   k6 run --local-ips 127.0.0.1-127.0.0.20 tests/load/edge.js
//
// Limits of the demo are by address, so more addresses let more pass. Both answers have to come: 200 and 429.
// What one tollgate can do is measured by `make bench`; here Envoy, backends and k6 share the machine.
import http from 'k6/http';
import { check, sleep } from 'k6';
import { Counter } from 'k6/metrics';

const EDGE = __ENV.EDGE || 'http://127.0.0.1:10000';
const ENVOY_ADMIN = __ENV.ENVOY_ADMIN || 'http://127.0.0.1:9901';
const HELD = 300;

const passed = new Counter('passed');
const limited = new Counter('limited');

// Anything else than these two is an error.
http.setResponseCallback(http.expectedStatuses(200, 429));

export const options = {
  summaryTrendStats: ['med', 'p(90)', 'p(99)', 'max'],
  scenarios: {
    // Whatever the answers take, 1000 requests are sent in every second.
    rate: {
      executor: 'constant-arrival-rate', exec: 'ask',
      rate: 1000, timeUnit: '1s', duration: '30s', preAllocatedVUs: 50, maxVUs: 500,
    },
    // Then connections that are open all the time and ask now and then.
    held: { executor: 'constant-vus', exec: 'askNowAndThen', vus: HELD, startTime: '35s', duration: '30s' },
    look: { executor: 'per-vu-iterations', exec: 'countConnections', vus: 1, iterations: 1, startTime: '50s' },
  },
  thresholds: {
    'http_req_failed': ['rate==0'],
    // Envoy lets a request pass, without a word of what is left, when tollgate takes longer than its timeout.
    'checks': ['rate>0.999'],
    'checks{scenario:look}': ['rate==1'],
    'dropped_iterations': ['count<30'],
    'http_req_duration{scenario:rate}': ['p(99)<100'],
    'http_req_duration{scenario:held}': ['p(99)<100'],
    'passed': ['count>0'],
    'limited': ['count>0'],
  },
};

export function ask() {
  const answer = http.get(`${EDGE}/api/v1/prices/ACME`);
  const denied = answer.status === 429;
  (denied ? limited : passed).add(1);
  check(answer, {
    'says how much is left': (answer) => answer.headers['X-Ratelimit-Remaining'] !== undefined,
    'says when to come back': (answer) => !denied || Number(answer.headers['Retry-After']) > 0,
  });
}

export function askNowAndThen() {
  sleep(0.5 + Math.random());
  ask();
}

export function countConnections() {
  const text = http.get(`${ENVOY_ADMIN}/stats?filter=^http.edge.downstream_cx_active$`).body;
  check(Number(text.split(': ')[1]), { 'all connections are held': (open) => open >= HELD });
}
