"""What runs inside Glance's own process: the filter of its API and the import
plugin. Only modules that Glance itself loads import it.
"""
