"""The report: one HTML file with pictures of a database, which opens without a network.

`build` reads everything in one snapshot, through the views. A module for each group of pictures turns rows into tables
and charts, and `page` puts them into the template.

The charts are Vega-Lite: a grammar of graphics with axes, scales and tooltips, which draws SVG in the colours and the
width of the page. vl-convert brings it in one wheel, with the JavaScript that the page inlines (0.9 MB), and compiles
the charts when the report is made, so that the browser has less to do. Altair would write the same specifications
through classes, and takes 1.6 s to import.
"""
