# syntax=docker/dockerfile:1

# The packages that the service runs with. A stage of its own: a change of the sources does not install them again.
FROM node:24-bookworm-slim AS packages
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev

FROM node:24-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci
COPY tsconfig.json tsconfig.build.json ./
COPY src src
COPY plugins plugins
COPY routes routes
COPY db db
COPY scripts scripts
RUN npm run build

FROM node:24-bookworm-slim
WORKDIR /app
COPY package.json ./
COPY --from=packages /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY db/migrations db/migrations
# The guides that the documentation page serves.
COPY README.md CHANGELOG.md SECURITY.md ARCHITECTURE.md CONTRIBUTING.md ./
COPY docs docs
COPY examples/web/README.md examples/web/README.md

# Within the container only: the outside reaches the ports that are published.
ENV NODE_ENV=production HOST=0.0.0.0 OPS_HOST=0.0.0.0
EXPOSE 3000 3001

# By number, so that Kubernetes can see that it is not root. Any other works as well: nothing is written.
USER 1000:1000
STOPSIGNAL SIGTERM
# Not /ready: some engines restart a container that is unhealthy, which does not help when the database is away.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.OPS_PORT || 3001}/live`).then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "dist/src/server.js"]
