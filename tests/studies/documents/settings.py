"""Numbers that may stand in a study's document outside a mark: what the run was asked, and the paper's own words."""

SETTINGS = {
    "bilevel_study.md": {
        ".001", ".5", "0", "08", "1", "10", "10,000", "100", "101", "150", "16", "2%", "20", "20%", "25", "25%", "36",
        "4", "40%", "5", "64", "8", "80%",
    },
    "group_study.md": {
        "1", "100", "14", "1e-2", "2020", "300", "36%", "40%", "55%", "60%", "7", "95%",
    },
}  # fmt: skip
