# The emulator as an image with the official one's shape: one node, no replication, NOT TigerBeetle.
# It never carries the official image's name. Context: the repository.
#
#   docker build -f files/tigerbeetle/emulator.Dockerfile -t tigerbeetle-emulator:0.17.9 .
ARG ROOT=debian:bookworm-slim
FROM ${ROOT}

# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3 tini && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin

COPY --chmod=755 files/tigerbeetle/run-emulator.sh /tigerbeetle
COPY tigerbeetle_emulator /opt/tigerbeetle_emulator
LABEL org.opencontainers.image.title="EMULATOR of a TigerBeetle node: not TigerBeetle"
ENTRYPOINT ["tini", "--", "/tigerbeetle"]
