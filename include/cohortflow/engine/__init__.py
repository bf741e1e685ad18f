"""Where kernels run."""

from cohortflow.engine.local import describe_table, plan_write, read_table, write_table

__all__ = ["describe_table", "plan_write", "read_table", "write_table"]
