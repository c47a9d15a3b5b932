"""The roles of a database beside its owner: who is a reader or a writer, and who can do more.

`drift.declared_roles` says which privileges a reader and a writer have. `granting` grants and revokes them, `login`
makes a role that logs in, `privileges` reads what a role can do, and `listing` tells that of all roles.
"""
