"""Numbers that may stand in a study's document outside a mark: what the run was asked, and the paper's own words."""

SETTINGS = {
    "group_study.md": {
        "1", "100", "14", "1e-2", "2020", "300", "36%", "40%", "55%", "60%", "7", "95%",
    },
}  # fmt: skip
