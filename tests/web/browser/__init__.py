"""The real page in a real browser: the server in a process of its own, the demo model, Chromium.

Every test fails on an error in the page and on any request that leaves the server's origin. Without a Chromium on the
machine the tests are skipped; where CI is set they must run. `USO_SCREENSHOTS=FOLDER` keeps pictures of what they saw.
"""
