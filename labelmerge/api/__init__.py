"""What `import labelmerge` offers a notebook: the steps of the command line as functions. docs/python.md."""
