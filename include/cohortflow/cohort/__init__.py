"""Cohort definitions: entry event, inclusion rules, index date, attrition."""
