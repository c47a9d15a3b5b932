"""What monitoring and retraining jobs call: a pool of connections, and the tables behind small, checked methods.

Nothing is imported at this level: `mlops_db` hands out `DatabaseManager` without loading SQLAlchemy or psycopg2.
"""
