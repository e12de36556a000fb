"""The documentation: sphinx-build -W -b html docs docs/_build/html."""

import wsicurate

project = "wsicurate"
copyright = "the wsicurate authors, Apache-2.0"
version = release = wsicurate.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.autosummary", "sphinx_copybutton"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# Links from the documents to files beside them, such as README.md and examples, are for readers of the repository.
suppress_warnings = ["myst.xref_missing"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Docstrings name parameters and code in single backticks.
default_role = "code"

html_theme = "furo"
html_title = f"wsicurate {version}"
html_theme_options = {"source_repository": ""}
copybutton_exclude = ".go, .gp"
autodoc_preserve_defaults = True
