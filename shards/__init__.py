"""What the datasets are: one TOML recipe per dataset; `mixtures/` names sets of datasets."""
