"""Numbers that may stand in a study's document outside a mark: what the run was asked, and the paper's own words."""

SETTINGS = {
    "fragility_study.md": {
        ".001", ".005", ".01", ".80", ".90", "0.1", "1", "1,000", "10", "100", "120", "125", "128", "15", "150", "1e-9",
        "2", "2,000", "20", "2022", "2023", "25", "250", "3", "3,000", "300", "4.4", "5", "50", "500", "60,000", "7,500",
        "8", "95%",
    },
    "group_study.md": {
        "1", "100", "14", "1e-2", "2020", "300", "36%", "40%", "55%", "60%", "7", "95%",
    },
}  # fmt: skip
