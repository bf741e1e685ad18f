"""Great Expectations suites that gate a release, and their reports."""
