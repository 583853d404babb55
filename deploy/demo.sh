#!/usr/bin/env bash
# The whole stack on this machine without containers: Redis, two tollgates that share it, three
# backends, Envoy, Prometheus. Waits until each is ready, prints what to try, and stops everything on Ctrl-C or
# when one of them ends. docker-compose.yml describes the same stack; tests/deploy compares both and
# deploy/envoy/envoy.yaml.
# With the argument `cluster`, Redis is a cluster: three primaries with a replica each.
# PROMETHEUS_INTERVAL=1s makes Prometheus scrape so often.
# DEMO_BIN=DIR takes tollgate and sample-backend from DIR instead of building them.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.tools/bin:$PATH"

REDIS=127.0.0.1:6390
EDGE=127.0.0.1:10000
ENVOY_ADMIN=127.0.0.1:9901
TOLLGATE_GRPC=(127.0.0.1:8081 127.0.0.1:8091)
TOLLGATE_ADMIN=(127.0.0.1:8082 127.0.0.1:8092)
TOLLGATE_HTTP=(127.0.0.1:8080 127.0.0.1:8090)
PROMETHEUS=127.0.0.1:9090
BACKENDS=(127.0.0.1:9001 127.0.0.1:9002 127.0.0.1:9003)
POLICIES=deploy/policies/edge.yaml
ENVOY_CONFIG=deploy/envoy/envoy.yaml
# The token of operators. Public, because the demo is for trials only.
ADMIN_TOKEN=demo
BIN=${DEMO_BIN:-target/release}
TOPOLOGY=${1:-standalone}
# The nodes of a cluster are on as many ports, from that of Redis on.
CLUSTER_NODES=6

READY_SECONDS=20
STOP_SECONDS=15

names=()
pids=()
logs=

say() { printf '%s\n' "$*"; }

die() {
    say "demo: $*" >&2
    exit 1
}

need() {
    command -v "$1" >/dev/null || die "$1 is not installed: $2"
}

need_free_port() {
    if (exec 3<>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; then
        die "$1 ($2) is in use: stop what listens there (ss -ltnp | grep :${1##*:}) and start again"
    fi
}

# start NAME COMMAND...: stdout goes to NAME.log, stderr to NAME.err.
start() {
    local name=$1
    shift
    # With job control each child has its own process group. Ctrl-C then reaches only this script,
    # which stops the children in order.
    set -m
    "$@" </dev/null >"$logs/$name.log" 2>"$logs/$name.err" &
    set +m
    names+=("$name")
    pids+=("$!")
}

pid_of() {
    local i
    for i in "${!names[@]}"; do
        if [ "${names[$i]}" = "$1" ]; then say "${pids[$i]}"; fi
    done
}

running() { kill -0 "$1" 2>/dev/null; }

# Ends the demo if a child has ended, with the last lines it wrote.
check_children() {
    local i name
    for i in "${!pids[@]}"; do
        running "${pids[$i]}" && continue
        name=${names[$i]}
        say "demo: $name has ended; its last lines:" >&2
        tail -q -n 15 "$logs/$name.log" "$logs/$name.err" | sed "s/^/  $name: /" >&2
        exit 1
    done
}

# await WHAT COMMAND...: polls until COMMAND succeeds.
await() {
    local what=$1 deadline=$((SECONDS + READY_SECONDS))
    shift
    until "$@" >/dev/null 2>&1; do
        check_children
        if [ "$SECONDS" -ge "$deadline" ]; then die "$what was not ready within $READY_SECONDS s; logs: $logs"; fi
        sleep 0.1
    done
    say "  ready  $what"
}

# The number of healthy members of a cluster, as Envoy sees it.
healthy() {
    curl -fsS -m 1 "http://$ENVOY_ADMIN/stats?filter=^cluster.$1.membership_healthy$" | grep -qx ".*: $2"
}

stop() {
    local status=$? deadline=$((SECONDS + STOP_SECONDS))
    trap '' INT TERM HUP
    trap - EXIT
    if [ "${#pids[@]}" -gt 0 ]; then say "stopping: ${names[*]}"; fi
    # Clients stop before their servers, so that no request in flight fails.
    end_all "$deadline" envoy
    end_all "$deadline" 'tollgate-*'
    end_all "$deadline" '*'
    if [ -n "$logs" ]; then say "logs: $logs"; fi
    exit "$status"
}

# end_all DEADLINE PATTERN: terminates the children whose names match and waits for them; kills them
# at the deadline.
end_all() {
    local i
    for i in "${!pids[@]}"; do
        # shellcheck disable=SC2053 # the right side is a pattern
        if [[ ${names[$i]} == $2 ]] && running "${pids[$i]}"; then
            kill -TERM "${pids[$i]}" 2>/dev/null || true
            # A child stopped by SIGSTOP must continue in order to exit.
            kill -CONT "${pids[$i]}" 2>/dev/null || true
        fi
    done
    for i in "${!pids[@]}"; do
        # shellcheck disable=SC2053
        while [[ ${names[$i]} == $2 ]] && running "${pids[$i]}"; do
            if [ "$SECONDS" -ge "$1" ]; then
                say "demo: ${names[$i]} did not stop, killing it" >&2
                kill -KILL "${pids[$i]}" 2>/dev/null || true
            fi
            sleep 0.05
        done
    done
}

# Redis stores the registry, so it acknowledges a write only after fsync.
start_redis() {
    mkdir "$logs/redis-data"
    start redis redis-server --bind "${REDIS%:*}" --port "${REDIS##*:}" --save '' --appendonly yes \
        --appendfsync always --dir "$logs/redis-data"
    await "redis       $REDIS" redis_answers
}

redis_answers() { [ "$(redis-cli -h "${REDIS%:*}" -p "${REDIS##*:}" ping)" = PONG ]; }

# node I: the address of a node of the cluster.
node() { say "${REDIS%:*}:$((${REDIS##*:} + $1))"; }

start_cluster() {
    local i name nodes=()
    for ((i = 0; i < CLUSTER_NODES; i++)); do
        name=redis-$((i + 1))
        nodes+=("$(node "$i")")
        mkdir "$logs/$name-data"
        start "$name" redis-server --bind "${REDIS%:*}" --port "${nodes[i]##*:}" --save '' \
            --appendonly yes --appendfsync always --dir "$logs/$name-data" --cluster-enabled yes \
            --cluster-node-timeout 2000 --cluster-require-full-coverage no
    done
    for i in "${nodes[@]}"; do await "redis       $i" node_answers "$i"; done
    redis-cli --cluster create "${nodes[@]}" --cluster-replicas 1 --cluster-yes >"$logs/create.log"
    await "            a cluster of ${#nodes[@]} nodes" cluster_is_whole "${nodes[@]}"
}

node_answers() { [ "$(redis-cli -h "${1%:*}" -p "${1##*:}" ping)" = PONG ]; }

cluster_is_whole() {
    local node
    for node in "$@"; do
        redis-cli -h "${node%:*}" -p "${node##*:}" cluster info | grep -q '^cluster_state:ok' || return 1
    done
}

start_backends() {
    local i
    for i in "${!BACKENDS[@]}"; do
        start "backend-$((i + 1))" "$BIN/sample-backend" --listen "${BACKENDS[$i]}" \
            --instance "backend-$((i + 1))" --ready-file "$logs/backend-$((i + 1)).ready"
    done
    for i in "${!BACKENDS[@]}"; do
        await "backend-$((i + 1))   ${BACKENDS[$i]}" test -s "$logs/backend-$((i + 1)).ready"
    done
}

# The token is passed in the environment, because all users can read command lines.
start_tollgates() {
    local i
    for i in "${!TOLLGATE_GRPC[@]}"; do
        TOLLGATE__ADMIN__TOKEN=$ADMIN_TOKEN start "tollgate-$((i + 1))" "$BIN/tollgate" \
            --policies "$POLICIES" --redis-url "redis://$REDIS" --set "redis.topology=$TOPOLOGY" \
            --set "grpc.listen=${TOLLGATE_GRPC[$i]}" --set "admin.listen=${TOLLGATE_ADMIN[$i]}" \
            --set "http.listen=${TOLLGATE_HTTP[$i]}" --ready-file "$logs/tollgate-$((i + 1)).ready"
    done
    for i in "${!TOLLGATE_GRPC[@]}"; do
        await "tollgate-$((i + 1))  ${TOLLGATE_GRPC[$i]}" test -s "$logs/tollgate-$((i + 1)).ready"
    done
}

start_envoy() {
    # The shipped file listens on every interface, as in a container; the demo uses loopback.
    sed "s/address: 0\.0\.0\.0, port_value: ${EDGE##*:}/address: ${EDGE%:*}, port_value: ${EDGE##*:}/" \
        "$ENVOY_CONFIG" >"$logs/envoy.yaml"
    start envoy envoy -c "$logs/envoy.yaml" --disable-hot-restart --concurrency 2 --log-level warning \
        --file-flush-interval-msec 200
    await "envoy       $EDGE" curl -fsS -m 1 "http://$EDGE/healthz"
    await "            ${#BACKENDS[@]} healthy backends" healthy backends "${#BACKENDS[@]}"
    await "            ${#TOLLGATE_GRPC[@]} healthy tollgates" healthy ratelimit "${#TOLLGATE_GRPC[@]}"
}

# Alertmanager is not part of the demo, so alerts are shown by Prometheus alone.
start_prometheus() {
    mkdir "$logs/prometheus-data"
    cp deploy/prometheus/recording.yml deploy/prometheus/alerts.yml "$logs"
    sed "s/_interval: 5s/_interval: ${PROMETHEUS_INTERVAL:-5s}/" deploy/prometheus/prometheus.yml >"$logs/prometheus.yml"
    start prometheus prometheus --config.file "$logs/prometheus.yml" --log.level warn \
        --web.listen-address "$PROMETHEUS" --storage.tsdb.path "$logs/prometheus-data"
    await "prometheus  $PROMETHEUS" curl -fsS -m 1 "http://$PROMETHEUS/-/ready"
}

print_what_to_try() {
    local backend
    backend=$(pid_of backend-2)
    cat <<TRY

The stack is up. In another terminal, in $PWD:

  curl -i http://$EDGE/api/v1/prices/ACME
      200; x-instance goes round backend-1, -2, -3; x-ratelimit-remaining counts down

  for i in 1 2 3 4 5 6; do curl -si -H 'x-api-key: demo-free' http://$EDGE/api/v1/prices/ACME |
      grep -iE '^(HTTP|x-ratelimit|retry-after)'; done
      five times 200, then 429 with x-ratelimit-limit (5;w=10;name="key-free"), x-ratelimit-remaining: 0 and
      retry-after: the seconds until the next one passes

  for i in \$(seq 11); do curl -s -o /dev/null -w '%{http_code} ' http://$EDGE/api/v1/orders \\
      -H 'content-type: application/json' -d '{"symbol": "ACME", "quantity": 2}'; done; echo
      ten times 201, then 429: ten orders a minute for each address
  curl -i --interface 127.0.0.2 http://$EDGE/api/v1/orders \\
      -H 'content-type: application/json' -d '{"symbol": "ACME", "quantity": 2}'
      201: another address has counters of its own (Linux)

  grpcurl -plaintext -H 'authorization: Bearer $ADMIN_TOKEN' -d '{"upsert": {"clients": [{"domain": "edge",
      "entries": [{"key": "api_key", "value": "acme"}], "limits": [{"requests_per_unit": 3, "unit": "HOUR"}]}]}}' \\
      ${TOLLGATE_ADMIN[0]} tollgate.v1.ClientService/ManageClients
  for i in 1 2 3 4; do curl -s -o /dev/null -w '%{http_code} ' -H 'x-api-key: acme' http://$EDGE/api/v1/prices/ACME; done; echo
      three times 200, then 429: both tollgates know of it within a second (grpcurl: .tools/bin/grpcurl)

  kill -STOP $backend     freezes backend-2: prices still answer 200, first late (x-envoy-attempt-count: 2),
                      then at once from the other two; kill -CONT $backend brings it back

  edit $POLICIES: the new numbers apply within a second

  tail -F $logs/envoy.log     the access log; "tollgate" says which rule limited a request
  curl -s http://$ENVOY_ADMIN/stats?filter=ratelimit     Envoy's counters; error and failure_mode_allowed stay 0
  curl -s http://${TOLLGATE_HTTP[0]}/metrics     tollgate's metrics
  http://${TOLLGATE_HTTP[0]}/     the status page of the first tollgate
  http://$PROMETHEUS/alerts     the same in Prometheus, with alerts; dashboards: deploy/grafana

Ctrl-C stops everything.
TRY
}

need curl "install it with your package manager"
need redis-server "run deploy/tools.sh"
need redis-cli "it comes with Redis"
need envoy "run deploy/tools.sh"
need prometheus "run deploy/tools.sh"
if [ -z "${DEMO_BIN:-}" ]; then
    need cargo "see https://rustup.rs"
    cargo build --release --bins
fi
case $TOPOLOGY in
standalone) need_free_port "$REDIS" redis ;;
cluster) for ((i = 0; i < CLUSTER_NODES; i++)); do need_free_port "$(node "$i")" redis; done ;;
*) die "unknown argument $TOPOLOGY: leave it out, or write cluster" ;;
esac
need_free_port "$EDGE" "Envoy, the edge"
need_free_port "$ENVOY_ADMIN" "Envoy, admin"
need_free_port "$PROMETHEUS" Prometheus
for address in "${TOLLGATE_GRPC[@]}" "${TOLLGATE_ADMIN[@]}" "${TOLLGATE_HTTP[@]}"; do need_free_port "$address" tollgate; done
for address in "${BACKENDS[@]}"; do need_free_port "$address" "sample backend"; done

logs=$(mktemp -d "${TMPDIR:-/tmp}/tollgate-demo.XXXXXX")
trap stop EXIT
trap 'exit 0' INT TERM HUP
say "logs: $logs"
if [ "$TOPOLOGY" = cluster ]; then start_cluster; else start_redis; fi
start_backends
start_tollgates
start_envoy
start_prometheus
print_what_to_try
while true; do
    check_children
    sleep 0.5
done
