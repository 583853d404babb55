# tollgate and the demo's sample-backend in one small image that runs as nobody.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bins && \
    cp target/release/tollgate target/release/sample-backend /usr/local/bin/

# The same Debian release as above, for its C library; no shell and no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /usr/local/bin/tollgate /usr/local/bin/sample-backend /usr/local/bin/
EXPOSE 8080 8081
ENTRYPOINT ["/usr/local/bin/tollgate"]
