# FastAPI with SQLAlchemy on asyncpg and python-jose, on uvicorn, as their documentations show them (in the versions of
# Debian 12: FastAPI 0.92, pydantic 1, SQLAlchemy 1.4).
import os
import time
from datetime import datetime, timezone
from secrets import randbits
from typing import List, Optional
from uuid import UUID

import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from jose import JWTError, jwt
from pydantic import BaseModel, Field
from sqlalchemy import Boolean, Column, DateTime, Text, func, select
from sqlalchemy.dialects.postgresql import UUID as Uuid
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import declarative_base, sessionmaker

SECRET = os.environ["JWT_SECRET"]
url = os.environ["DATABASE_URL"].replace("postgres://", "postgresql://", 1)
engine = create_async_engine(
    url.replace("postgresql://", "postgresql+asyncpg://", 1), pool_size=10, max_overflow=0
)
new_session = sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)
Base = declarative_base()


class TaskRow(Base):
    __tablename__ = "tasks"
    __mapper_args__ = {"eager_defaults": True}

    user_id = Column(Text, primary_key=True)
    id = Column(Uuid(as_uuid=True), primary_key=True)
    title = Column(Text, nullable=False)
    description = Column(Text)
    completed = Column(Boolean, nullable=False)
    completed_at = Column(DateTime(timezone=True))
    created_at = Column(DateTime(timezone=True), server_default=func.now())
    updated_at = Column(DateTime(timezone=True), server_default=func.now())


def rfc3339(instant: datetime) -> str:
    utc = instant.astimezone(timezone.utc)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Task(BaseModel):
    id: UUID
    user_id: str
    title: str
    description: Optional[str]
    completed: bool
    completed_at: Optional[datetime]
    created_at: datetime
    updated_at: datetime

    class Config:
        orm_mode = True
        json_encoders = {datetime: rfc3339}


class CreateTask(BaseModel):
    title: str = Field(min_length=1, max_length=200)
    description: Optional[str] = Field(default=None, max_length=10_000)
    completed: bool = False


class UpdateTask(BaseModel):
    title: Optional[str] = Field(default=None, min_length=1, max_length=200)
    description: Optional[str] = Field(default=None, max_length=10_000)
    completed: Optional[bool] = None


bearer = HTTPBearer(auto_error=False)


async def owner(
    user_id: str, credentials: Optional[HTTPAuthorizationCredentials] = Depends(bearer)
) -> str:
    try:
        claims = jwt.decode(credentials.credentials if credentials else "", SECRET, algorithms=["HS256"])
    except JWTError:
        raise HTTPException(401, "A valid bearer token is required.", {"WWW-Authenticate": "Bearer"})
    if claims.get("sub") != user_id:
        raise HTTPException(403, "The user in the path is not the user of the token.")
    return user_id


async def session():
    async with new_session() as opened:
        yield opened


async def own_task(
    task_id: UUID, user: str = Depends(owner), db: AsyncSession = Depends(session)
) -> TaskRow:
    task = await db.get(TaskRow, (user, task_id))
    if task is None:
        raise HTTPException(404, "There is no such task.")
    return task


def uuid7() -> UUID:
    return UUID(int=(time.time_ns() // 1_000_000) << 80 | 0x7 << 76 | randbits(12) << 64 | 0b10 << 62 | randbits(62))


def now() -> datetime:
    # The column has milliseconds, and so must the answer.
    instant = datetime.now(timezone.utc)
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


def set_completed(task: TaskRow, completed: bool) -> None:
    if task.completed != completed:
        task.completed_at = now() if completed else None
    task.completed = completed


app = FastAPI()


@app.get("/api/{user_id}/tasks", response_model=List[Task])
async def list_tasks(user: str = Depends(owner), db: AsyncSession = Depends(session)):
    rows = await db.execute(select(TaskRow).where(TaskRow.user_id == user).order_by(TaskRow.id.desc()))
    return rows.scalars().all()


@app.post("/api/{user_id}/tasks", response_model=Task, status_code=201)
async def create_task(body: CreateTask, user: str = Depends(owner), db: AsyncSession = Depends(session)):
    task = TaskRow(user_id=user, id=uuid7(), title=body.title, description=body.description)
    set_completed(task, body.completed)
    db.add(task)
    await db.commit()
    return task


@app.get("/api/{user_id}/tasks/{task_id}", response_model=Task)
async def get_task(task: TaskRow = Depends(own_task)):
    return task


@app.patch("/api/{user_id}/tasks/{task_id}", response_model=Task)
async def update_task(
    body: UpdateTask, task: TaskRow = Depends(own_task), db: AsyncSession = Depends(session)
):
    changes = body.dict(exclude_unset=True)
    if "completed" in changes:
        set_completed(task, changes.pop("completed"))
    for name, value in changes.items():
        setattr(task, name, value)
    task.updated_at = now()
    await db.commit()
    return task


@app.patch("/api/{user_id}/tasks/{task_id}/complete", response_model=Task)
async def toggle_task(task: TaskRow = Depends(own_task), db: AsyncSession = Depends(session)):
    set_completed(task, not task.completed)
    task.updated_at = now()
    await db.commit()
    return task


port = int(os.environ["PORT"])


@app.on_event("startup")
def ready():
    print(f"FastAPI on {port}", flush=True)


uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="warning")
