"""How a function in SQL is written so that it can read distributed tables: in PL/pgSQL, around the same query.

Citus refuses functions in SQL that use parameters, because it plans their queries without the values.
"""

import re

# In SQL, the names of the query are looked up when the function is made; in PL/pgSQL, when it is called.
_PATH = " SET search_path TO 'pg_catalog', 'pg_temp'\n"
# Names mean columns before they mean the function's parameters, as in SQL.
_BEGIN = "#variable_conflict use_column\nBEGIN RETURN QUERY\n"
_END = "\n;\nEND"

_SQL = re.compile(r"(CREATE .*?\n LANGUAGE )sql\n(.*?)AS (?P<tag>\$\w+\$)(?P<query>.*)(?P=tag)\n?", re.DOTALL)
_PLPGSQL = re.compile(
    r"(CREATE .*?\n LANGUAGE )plpgsql\n(.*?)"
    + re.escape(_PATH)
    + r"AS (?P<tag>\$\w+\$)"
    + re.escape(_BEGIN)
    + "(?P<query>.*)"
    + re.escape(_END)
    + r"(?P=tag)\n?",
    re.DOTALL,
)


def wrap(definition: str) -> str:
    """The definition in PL/pgSQL of a function in SQL that returns rows; any other definition is returned as it is.

    Args:
        definition: what `pg_get_functiondef` returns.
    """
    return _SQL.sub(
        rf"\1plpgsql\n\2{_escaped(_PATH)}AS \g<tag>{_escaped(_BEGIN)}\g<query>{_escaped(_END)}\g<tag>\n", definition
    )


def unwrap(definition: str) -> str:
    """The definition that `wrap` was given; any other one is returned as it is."""
    return _PLPGSQL.sub(r"\1sql\n\2AS \g<tag>\g<query>\g<tag>\n", definition)


def _escaped(text: str) -> str:
    return text.replace("\n", r"\n")
