//! The admin endpoints: `/stats`, `/clusters`, `/config_dump`, readiness, Prometheus.
