"""The service: public gRPC API, scheduling, placement, Ray's lifecycle, sessions in Redis, telemetry."""
