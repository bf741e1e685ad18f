"""What tests must know of the views of the catalog and cannot read from it."""

WITHOUT_PATIENT = {
    "code_system_hierarchy",
    "location",
    "medication",
    "organization",
    "practitioner",
    "practitioner_role",
}
"""Views whose rows belong to no patient."""
