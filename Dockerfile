# An image of lizm: the static binary, a directory for its store, and nothing else.
#
#   docker build -t lizm .
#   docker run -p 8080:8080 -v lizm:/var/lib/lizm lizm
#   docker run lizm monitor --help

ARG RUST=1.95
FROM docker.io/library/rust:${RUST}-slim-bookworm AS build
WORKDIR /lizm
# What is copied is named in .dockerignore.
COPY . .
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
 && RUSTFLAGS='-C target-feature=+crt-static -C symbol-mangling-version=v0 -C link-arg=-Tlayout.ld -C link-arg=-Wl,-z,pack-relative-relocs' \
    cargo build --profile dist --locked --target "$target" \
 && install -D "target/$target/dist/lizm" /image/lizm \
 && install -d -o 65532 -g 65532 /image/var/lib/lizm

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="lizm" \
      org.opencontainers.image.description="Host metrics without a monitoring stack: one small binary that samples, summarises and serves" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A named volume takes its owner from the directory that it is mounted over.
COPY --from=build --chown=65532:65532 /image/ /
# By number, since there is no /etc/passwd; the one that images without one commonly have.
USER 65532:65532
VOLUME /var/lib/lizm
EXPOSE 8080
ENV LIZM_HTTP_SERVER=builtin
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["/lizm", "check", "http://127.0.0.1:8080"]
ENTRYPOINT ["/lizm"]
CMD ["receiver", "--store", "/var/lib/lizm"]
