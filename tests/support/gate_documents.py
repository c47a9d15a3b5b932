"""Hypothesis strategies for gate results: values of one gate, and whole documents."""

from hypothesis import strategies as st

from support.views_model import GATES

scalars = st.none() | st.booleans() | st.integers(-1, 1) | st.sampled_from(["true", "passed", ""])
gate_values = (
    scalars | st.lists(scalars, max_size=2) | st.fixed_dictionaries({}, optional={"passed": scalars, "x": scalars})
)
gate_names = st.sampled_from([*GATES, "coverage_validation", "another"])
gate_documents = st.dictionaries(gate_names, st.booleans() | gate_values, max_size=8)
