"""Routes of the voices: list, upload, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Form, HTTPException, UploadFile

from qtts_jax.serving.http.service import Service


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/audio/voices")

    @routes.get("")
    def names() -> dict[str, list[str]]:
        """Preset speakers and uploaded voices."""
        return {"voices": service.presets, "uploaded_voices": service.voices.names()}

    @routes.post("", status_code=201)
    async def create(
        name: Annotated[str, Form()],
        audio: Annotated[UploadFile, File()],
        ref_text: Annotated[str | None, Form(max_length=4096)] = None,
        x_vector_only: Annotated[bool, Form()] = False,
    ) -> dict[str, str]:
        """Encode a recording once and keep it under a name."""
        service.voices.check_name(name)
        content = await audio.read(service.settings.max_upload_bytes + 1)
        voice = await service.encode(content, ref_text, x_vector_only)
        service.voices.add(name, voice)
        return {"name": name}

    @routes.delete("/{name}")
    def delete(name: str) -> dict[str, str]:
        if not service.voices.remove(name):
            raise HTTPException(404, f"there is no uploaded voice {name[:80]!r}.")
        return {"deleted": name}

    return routes
