# tollgate alone on an empty root, as nobody. deploy/image.py makes the same image without Docker, and
# tests/deploy compares both. `--target backend` is the sample backend of the demo.
FROM --platform=$BUILDPLATFORM rust:1.95.0-bookworm AS build
ARG TARGETARCH
WORKDIR /src
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    deploy/release.sh static "$TARGETARCH" /out tollgate sample-backend
# A directory, because COPY of a single link would copy the file that it names.
RUN mkdir -p /out/root/bin /out/root/etc/ssl/certs /out/data && \
    mv /out/tollgate /out/root/bin/ && ln -s tollgate /out/root/bin/ratelimit && \
    cp /etc/ssl/certs/ca-certificates.crt /out/root/etc/ssl/certs/

FROM scratch AS backend
COPY --from=build /out/sample-backend /bin/
USER 65534:65534
ENTRYPOINT ["/bin/sample-backend"]

FROM scratch
LABEL org.opencontainers.image.title="tollgate" \
      org.opencontainers.image.description="A gRPC rate-limit decision service for Envoy and microservices" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /out/root/ /
# The one place that the user may write to; nothing is written there with Redis.
COPY --from=build --chown=65534:65534 /out/data /data
WORKDIR /
USER 65534:65534
EXPOSE 6070 8080 8081
ENTRYPOINT ["/bin/tollgate"]
