"""docs.site: the project as a web site, made of source files, documents and charts. `python -m docs.site`."""
