"""Clients of hospital systems: authorization, paging, retry, resume."""
