# A base image shaped like the official one, from a server binary of your own: for machines that
# cannot reach a registry. ROOT is any local Debian or Alpine image; the context holds the binary.
#
#   docker build -f files/tigerbeetle/base.Dockerfile --build-arg ROOT=debian:bookworm-slim \
#     -t ghcr.io/tigerbeetle/tigerbeetle:0.17.9 DIRECTORY_WITH_THE_BINARY
ARG ROOT
FROM ${ROOT}

# tini stays PID 1: the server has no SIGTERM handler, and a PID 1 without one cannot be stopped.
# hadolint ignore=DL3008,DL3018
RUN if command -v tini; then \
      true; \
    elif command -v apk; then \
      apk add --no-cache tini; \
    else \
      apt-get update && apt-get install -y --no-install-recommends tini && \
      rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin; \
    fi

COPY --chmod=755 tigerbeetle /tigerbeetle
ENTRYPOINT ["tini", "--", "/tigerbeetle"]
