"""SQL that reads access control lists."""

# Of an entry `acl` of aclexplode, as GRANT has it: ` TO reader WITH GRANT OPTION`.
TO_GRANTEE = """\
' TO ' || CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END
       || CASE WHEN acl.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END"""
