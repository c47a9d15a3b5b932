"""The tables of metrics over the nodes of a Citus cluster: distribute them, and bring them back."""
