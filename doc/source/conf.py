"""Sphinx: the documentation of splitimage-driver."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_exts"))
sys.path.insert(0, str(Path(__file__).parents[2]))

project = "splitimage-driver"
copyright = "the splitimage-driver authors"
extensions = ["openstackdocstheme", "oslo_config.sphinxext", "cliff.sphinxext", "tables"]
html_theme = "openstackdocs"
openstackdocs_auto_name = False
openstackdocs_bug_project = ""
exclude_patterns = []
pygments_style = "native"
autoprogram_cliff_application = "splitimage"
# The same for every command: told once, in commands.rst.
autoprogram_cliff_ignored = [
    "--help", "--format", "--column", "--quote", "--noindent", "--max-width", "--fit-width",
    "--print-empty", "--prefix", "--sort-column", "--sort-ascending", "--sort-descending"]
