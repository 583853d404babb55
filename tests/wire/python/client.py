"""A client with gRPC for Python: see tests/wire/clients.rs for what it prints."""

import sys
import time
from pathlib import Path

import grpc

DECIDE = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
UNKNOWN = "/x.Y/Z"
VERDICTS = {1: "OK", 2: "OVER_LIMIT"}

address, mode, messages = sys.argv[1:]
channel = grpc.insecure_channel(address)


def message(name):
    return Path(messages, name).read_bytes()


def ask(path, name):
    """The answer, or the code of gRPC."""
    try:
        return channel.unary_unary(path)(message(name), timeout=30)
    except grpc.RpcError as error:
        return error.code().name


def verdict(answer):
    return answer if isinstance(answer, str) else VERDICTS[answer[1]]


def first(path, name, timeout, end):
    """The first answer of a stream, and the code that `end` leads to."""
    stream = channel.stream_stream(path)(iter([message(name)]), timeout=timeout)
    answer = next(stream)
    end(stream)
    try:
        next(stream, None)
    except grpc.RpcError:
        pass
    return answer, stream.code().name


def together(calls):
    futures = [channel.unary_unary(DECIDE).future(message("many"), timeout=30) for _ in range(calls)]
    if mode == "drain":
        print("sent", flush=True)
    passed = [future for future in futures if future.exception() is None and future.result()[1] == 1]
    return len(passed)


def checks():
    print("decide", *(verdict(ask(DECIDE, "two")) for _ in range(3)))
    print("health OK", ask(CHECK, "health")[1])
    print("nobody", ask(CHECK, "nobody"))
    print("unknown", ask(UNKNOWN, "health"))
    answer, code = first(WATCH, "health", 30, lambda stream: stream.cancel())
    print("cancel", answer[1], code)
    answer, code = first(WATCH, "health", 0.5, lambda stream: None)
    print("deadline", answer[1], code)
    answer, _ = first(REFLECT, "list", 30, lambda stream: None)
    print("reflection", str(b"envoy.service.ratelimit.v3.RateLimitService" in answer).lower())
    print("large", verdict(ask(DECIDE, "large")))
    print("together", together(1000))
    print("again", verdict(ask(DECIDE, "many")))


if mode == "checks":
    checks()
elif mode == "drain":
    print("first", verdict(ask(DECIDE, "many")), flush=True)
    sys.stdin.readline()
    print("answered", together(50))
elif mode == "age":
    failed, end = 0, time.monotonic() + 1.5
    while time.monotonic() < end:
        failed += verdict(ask(DECIDE, "many")) != "OK"
    print("failed", failed)
