# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A line in audit.log for whatever the policy refuses; nvflare 2.9.0 writes lines only for what it lets through.

A component of the server's and of each site's local/resources.json.
"""

from __future__ import annotations

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.sec.audit import AuditService
from nvflare.fuel.sec.authz import AuthorizationService, AuthzContext


class AuditRefusals(FLComponent):
    """Adds `[U:user][A:right]refused: reason` for admin commands, and for jobs with code where that is forbidden."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Once, when the process of the server or the site has its policy."""
        authorizer = AuthorizationService.get_authorizer()
        if event_type != EventType.SYSTEM_START or authorizer is None:
            return
        decide = authorizer.authorize

        def authorize(ctx: AuthzContext) -> tuple[bool, str]:
            authorized, reason = decide(ctx)
            if not authorized:
                AuditService.add_event(user=ctx.user.name, action=ctx.right, msg=f"refused: {reason}")
                self.logger.warning(f"refused: {reason}")
            return authorized, reason

        authorizer.authorize = authorize
