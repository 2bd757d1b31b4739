"""Small real data sets that travel with the package; see PROVENANCE.md for sources and licences."""
