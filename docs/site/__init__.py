"""docs.site: the project as a web site, made of the source files, the documents and the charts. `python -m docs.site`."""
