from tests.pool_fixtures import make_sessions, pool, record, sessions  # noqa: F401 - fixtures
