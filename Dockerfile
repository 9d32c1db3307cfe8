# The holdfast command in an image that holds nothing else: no shell, no libc, an
# unprivileged user.
#
#   docker build -t holdfast .
#   docker run --rm -p 8080:8080 holdfast serve --listen :8080 --node node1 --database postgres://… --migrate
FROM golang:1.26 AS build
WORKDIR /src
# The modules first, so that they are fetched again only when they change.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags=-s -o /out/holdfast ./cmd/holdfast

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/holdfast /holdfast
EXPOSE 8080
ENTRYPOINT ["/holdfast"]
