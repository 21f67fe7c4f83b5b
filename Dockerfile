# syntax=docker/dockerfile:1

# Production packages, in a stage of their own: a change of the sources does not install them again.
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

# These addresses are inside the container. Only published ports are reachable from outside.
ENV NODE_ENV=production HOST=0.0.0.0 OPS_HOST=0.0.0.0
EXPOSE 3000 3001

# A number, so that Kubernetes can see that it is not root. Any other user works too, because no file is written.
USER 1000:1000
STOPSIGNAL SIGTERM
# /live and not /ready: some engines restart an unhealthy container, which does not help while the database is away.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.OPS_PORT || 3001}/live`).then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "dist/src/server.js"]
