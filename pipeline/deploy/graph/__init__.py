"""The pipelines as a picture (Mermaid, DOT, SVG) or as an AsyncAPI document: pure functions of what is declared."""
