"""The site: what `mkdocs build` needs beside the pages."""
