"""Grafana's dashboards and alert rules. `mlops-db docs` writes them into grafana/ of a checkout.

The modules need grafana-foundation-sdk, which is only there with the extra `check` and Python 3.11.
"""
