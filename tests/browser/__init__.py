"""Tests in a real browser: ``make test-browser``. They need Playwright's Python package (the extra ``browser``) and a chromium."""
