"""A service in Python that asks tollgate itself, without Envoy: it waits for a deadline at most, lets pass what nobody
decided, and pays for work when it knows what it cost. To be copied from; not a library.

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

# How long a request may wait for a decision: more than tollgate gives its store (`store.deadline`), and less than a user
# notices. In seconds, as below.
DEADLINE = 0.05

# How long settling may take. Nobody waits for it.
SETTLE_DEADLINE = 1.0

DOMAIN = "snippets"


@dataclass(frozen=True)
class Decision:
    """What became of a request."""

    # Whether to go on.
    passes: bool
    # Seconds until it is worth asking again; None: never, or now.
    retry_after: float | None = None
    # False: no answer came in time, so it passes.
    decided: bool = True

    def __str__(self):
        if self.passes:
            return "passes" if self.decided else "passes, undecided"
        return "denied" if self.retry_after is None else f"denied, retry after {self.retry_after:.3f} s"


class Limiter:
    """Asks tollgate over one channel; one for the whole process. `dns:///name:8081` asks all replicas in turn."""

    def __init__(self, address, deadline=DEADLINE):
        policy = '{"loadBalancingConfig": [{"round_robin": {}}]}'
        # Connects at the first request, and again whenever the connection is lost.
        channel = grpc.insecure_channel(address, options=[("grpc.service_config", policy)])
        self._service = RateLimitServiceStub(channel)
        self._deadline = deadline

    def ask(self, entries):
        """May this pass, at a cost of one hit?"""
        return self._decide(entries, 1, self._deadline)

    def peek(self, entries):
        """Is anything left? Charges nothing."""
        return self._decide(entries, 0, self._deadline)

    def settle(self, entries, cost):
        """Charges what was spent already, so there is nothing to decide. It is never sent twice: a call that was cut off
        may have been charged."""
        # Hits of 0 would be a peek.
        if cost > 0 and not self._decide(entries, cost, max(SETTLE_DEADLINE, self._deadline)).decided:
            print(f"a cost of {cost} may not have been charged to {entries}", file=sys.stderr)

    def _decide(self, entries, hits, deadline):
        descriptor = RateLimitDescriptor(
            entries=[RateLimitDescriptor.Entry(key=key, value=value) for key, value in entries],
            hits_addend=UInt64Value(value=hits),
        )
        request = RateLimitRequest(domain=DOMAIN, descriptors=[descriptor])
        try:
            # The deadline covers connecting, and tollgate is told of it: it answers before its caller gives up.
            return read(self._service.ShouldRateLimit(request, timeout=deadline))
        except grpc.RpcError as error:
            # Fails open: limits protect the service, they must not be what stops it.
            print(f"passes without a decision: {error.code()}: {error.details()}", file=sys.stderr)
            return Decision(passes=True, decided=False)


def read(response):
    passes = response.overall_code != RateLimitResponse.OVER_LIMIT
    return Decision(passes, None if passes else retry_after(response))


def retry_after(response):
    """When all descriptors would pass that are over their limit: to the millisecond by the metadata, else, where tollgate
    is set to send none, by whole seconds."""
    over = [i for i, status in enumerate(response.statuses) if status.code == RateLimitResponse.OVER_LIMIT]
    if not over:
        # A request beyond the bounds of tollgate is over its limit as a whole, and never passes as it is.
        return None
    if not response.HasField("dynamic_metadata"):
        return max(response.statuses[i].duration_until_reset.ToTimedelta().total_seconds() for i in over)
    told = response.dynamic_metadata["descriptors"]
    # Absent for one: never.
    if any("retry_after_ms" not in told[i] for i in over):
        return None
    return max(told[i]["retry_after_ms"] for i in over) / 1000


def serve(limiter, tenant):
    """A request of a tenant, and work whose cost is known only afterwards. What became of each."""
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
    """Stands for what is worth limiting; says what it cost."""
    return 80


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: ask.py ADDRESS TENANT [DEADLINE]")
    limiter = Limiter(sys.argv[1], float(sys.argv[3]) if len(sys.argv) == 4 else DEADLINE)
    print("\n".join(serve(limiter, sys.argv[2])))
