// A client with gRPC for Node.js: see tests/wire/clients.rs for what it prints.
'use strict';

const fs = require('fs');
const path = require('path');
const readline = require('readline');
const grpc = require('@grpc/grpc-js');

const DECIDE = '/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit';
const CHECK = '/grpc.health.v1.Health/Check';
const WATCH = '/grpc.health.v1.Health/Watch';
const REFLECT = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';
const UNKNOWN = '/x.Y/Z';
const VERDICTS = { 1: 'OK', 2: 'OVER_LIMIT' };

const [address, mode, messages] = process.argv.slice(2);
const client = new grpc.Client(address, grpc.credentials.createInsecure());
const same = (bytes) => bytes;
const message = (name) => fs.readFileSync(path.join(messages, name));
const within = (ms) => ({ deadline: Date.now() + ms });

// The answer, or the code of gRPC.
const ask = (method, name) =>
  new Promise((resolve) => {
    client.makeUnaryRequest(method, same, same, message(name), within(30000), (error, answer) =>
      resolve(error ? grpc.status[error.code] : answer));
  });

const verdict = (answer) => (typeof answer === 'string' ? answer : VERDICTS[answer[1]]);

// The first answer of a stream, and the code that `end` leads to.
const first = (method, name, ms, end) =>
  new Promise((resolve) => {
    const stream = client.makeBidiStreamRequest(method, same, same, within(ms));
    let answer;
    stream.on('data', (data) => {
      answer = data;
      end(stream);
    });
    stream.on('error', () => {});
    stream.on('status', (status) => resolve([answer, grpc.status[status.code]]));
    stream.write(message(name));
    stream.end();
  });

const together = async (calls) => {
  const answers = Array.from({ length: calls }, () => ask(DECIDE, 'many'));
  if (mode === 'drain') console.log('sent');
  return (await Promise.all(answers)).filter((answer) => verdict(answer) === 'OK').length;
};

const checks = async () => {
  const two = [];
  for (let i = 0; i < 3; i += 1) two.push(verdict(await ask(DECIDE, 'two')));
  console.log('decide', ...two);
  console.log('health OK', (await ask(CHECK, 'health'))[1]);
  console.log('nobody', await ask(CHECK, 'nobody'));
  console.log('unknown', await ask(UNKNOWN, 'health'));
  let [answer, code] = await first(WATCH, 'health', 30000, (stream) => stream.cancel());
  console.log('cancel', answer[1], code);
  [answer, code] = await first(WATCH, 'health', 500, () => {});
  console.log('deadline', answer[1], code);
  [answer] = await first(REFLECT, 'list', 30000, () => {});
  console.log('reflection', answer.includes('envoy.service.ratelimit.v3.RateLimitService'));
  console.log('large', verdict(await ask(DECIDE, 'large')));
  console.log('together', await together(1000));
  console.log('again', verdict(await ask(DECIDE, 'many')));
};

const main = async () => {
  if (mode === 'checks') {
    await checks();
  } else if (mode === 'drain') {
    console.log('first', verdict(await ask(DECIDE, 'many')));
    const input = readline.createInterface({ input: process.stdin });
    await new Promise((resolve) => input.once('line', resolve));
    input.close();
    console.log('answered', await together(50));
  } else if (mode === 'age') {
    let failed = 0;
    for (const end = Date.now() + 1500; Date.now() < end; ) {
      if (verdict(await ask(DECIDE, 'many')) !== 'OK') failed += 1;
    }
    console.log('failed', failed);
  }
  client.close();
};

main();
