"""A Python service that calls tollgate directly, without Envoy.

It waits at most for a deadline, fails open, and charges work whose cost is known only afterwards.
A template to copy, not a library.

With the packages grpcio and grpcio-tools, from the root of the repository:

    tollgate --policies deploy/snippets/policy.yaml
    mkdir -p gen && python -m grpc_tools.protoc -I proto --python_out=gen --grpc_python_out=gen $(find proto/envoy -name '*.proto')
    PYTHONPATH=gen python deploy/snippets/ask.py 127.0.0.1:8081 acme
"""

import sys
from dataclasses import dataclass

import grpc
from envoy.extensions.common.ratelimit.v3.ratelimit_pb2 import RateLimitDescriptor
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from envoy.service.ratelimit.v3.rls_pb2_grpc import RateLimitServiceStub
from google.protobuf.wrappers_pb2 import UInt64Value

# Maximum time to wait for a decision. Longer than the store deadline of tollgate
# (`store.deadline`), and short enough that users do not notice. In seconds, as below.
DEADLINE = 0.05

# Maximum time to settle. No user waits for it.
SETTLE_DEADLINE = 1.0

DOMAIN = "snippets"


@dataclass(frozen=True)
class Decision:
    """The decision of a request."""

    # True if the request may proceed.
    passes: bool
    # Seconds until a retry can pass; None: never, or now.
    retry_after: float | None = None
    # False if no answer arrived in time, so that the request passes.
    decided: bool = True

    def __str__(self):
        if self.passes:
            return "passes" if self.decided else "passes, undecided"
        return "denied" if self.retry_after is None else f"denied, retry after {self.retry_after:.3f} s"


class Limiter:
    """A client of tollgate with one channel. Use one per process.

    `dns:///name:8081` balances over all replicas.
    """

    def __init__(self, address, deadline=DEADLINE):
        policy = '{"loadBalancingConfig": [{"round_robin": {}}]}'
        # Connects at the first request, and reconnects after a lost connection.
        channel = grpc.insecure_channel(address, options=[("grpc.service_config", policy)])
        self._service = RateLimitServiceStub(channel)
        self._deadline = deadline

    def ask(self, entries):
        """Decides a request at a cost of one hit."""
        return self._decide(entries, 1, self._deadline)

    def peek(self, entries):
        """Tests if a hit is left; charges nothing."""
        return self._decide(entries, 0, self._deadline)

    def settle(self, entries, cost):
        """Charges a cost that is already spent, so there is no decision.

        Never retried, because an interrupted call may have been charged.
        """
        # 0 hits would be a peek.
        if cost > 0 and not self._decide(entries, cost, max(SETTLE_DEADLINE, self._deadline)).decided:
            print(f"a cost of {cost} may not have been charged to {entries}", file=sys.stderr)

    def _decide(self, entries, hits, deadline):
        descriptor = RateLimitDescriptor(
            entries=[RateLimitDescriptor.Entry(key=key, value=value) for key, value in entries],
            hits_addend=UInt64Value(value=hits),
        )
        request = RateLimitRequest(domain=DOMAIN, descriptors=[descriptor])
        try:
            # The deadline covers the time to connect. gRPC sends it to tollgate, which answers
            # before it.
            return read(self._service.ShouldRateLimit(request, timeout=deadline))
        except grpc.RpcError as error:
            # Fails open: limits protect the service and must not stop it.
            print(f"passes without a decision: {error.code()}: {error.details()}", file=sys.stderr)
            return Decision(passes=True, decided=False)


def read(response):
    passes = response.overall_code != RateLimitResponse.OVER_LIMIT
    return Decision(passes, None if passes else retry_after(response))


def retry_after(response):
    """Seconds until all descriptors over their limit would pass; None: never.

    From the metadata, to the millisecond. If tollgate sends none, whole seconds.
    """
    over = [i for i, status in enumerate(response.statuses) if status.code == RateLimitResponse.OVER_LIMIT]
    if not over:
        # A request beyond the bounds of tollgate is over limit as a whole; a retry never passes.
        return None
    if not response.HasField("dynamic_metadata"):
        return max(response.statuses[i].duration_until_reset.ToTimedelta().total_seconds() for i in over)
    details = response.dynamic_metadata["descriptors"]
    # Absent for one descriptor: never.
    if any("retry_after_ms" not in details[i] for i in over):
        return None
    return max(details[i]["retry_after_ms"] for i in over) / 1000


def serve(limiter, tenant):
    """Serves a request of a tenant, and work whose cost is known only afterwards."""
    request = limiter.ask([("tenant", tenant)])
    budget = [("tenant", tenant), ("budget", "tokens")]
    left = limiter.peek(budget)
    done = ""
    if left.passes:
        cost = work()
        limiter.settle(budget, cost)
        done = f", cost {cost}"
    return [f"request: {request}", f"work: {left}{done}"]


def work():
    """A placeholder for the limited work; returns its cost."""
    return 80


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: ask.py ADDRESS TENANT [DEADLINE]")
    limiter = Limiter(sys.argv[1], float(sys.argv[3]) if len(sys.argv) == 4 else DEADLINE)
    print("\n".join(serve(limiter, sys.argv[2])))
