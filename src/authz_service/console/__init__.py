"""The console: pages for people, made on the server; they work without JavaScript and improve with a little of it."""

from authz_service.console.pages.openid import CALLBACK as OPENID_CALLBACK
from authz_service.console.parts import Console
from authz_service.console.routing import router

__all__ = ["OPENID_CALLBACK", "Console", "router"]
