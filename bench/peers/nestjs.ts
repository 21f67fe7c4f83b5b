// NestJS on Fastify with its own JWT module, guard and TypeORM module, and a zod pipe, written as in its
// documentation. Injected values have names, because the loader of this file drops the types that Nest would read.
import 'reflect-metadata'
import {
  Body,
  type CanActivate,
  Controller,
  type ExecutionContext,
  ForbiddenException,
  Get,
  HttpException,
  Inject,
  Injectable,
  Module,
  NotFoundException,
  Param,
  ParseUUIDPipe,
  Patch,
  type PipeTransform,
  Post,
  UnauthorizedException,
  UseGuards
} from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { JwtModule, JwtService } from '@nestjs/jwt'
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify'
import { InjectRepository, TypeOrmModule } from '@nestjs/typeorm'
import { Column, CreateDateColumn, Entity, PrimaryColumn, type Repository, UpdateDateColumn } from 'typeorm'
import { v7 as uuidv7 } from 'uuid'
import * as z from 'zod'

const { DATABASE_URL, JWT_SECRET, PORT } = process.env

@Entity('tasks')
class Task {
  @PrimaryColumn('text') user_id!: string
  @PrimaryColumn('uuid') id!: string
  @Column('text') title!: string
  @Column('text', { nullable: true }) description!: string | null
  @Column('boolean') completed!: boolean
  @Column('timestamptz', { precision: 3, nullable: true }) completed_at!: Date | null
  @CreateDateColumn({ type: 'timestamptz', precision: 3 }) created_at!: Date
  @UpdateDateColumn({ type: 'timestamptz', precision: 3 }) updated_at!: Date
}

const CreateTask = z.object({
  title: z.string().min(1).max(200),
  description: z.string().max(10_000).nullish(),
  completed: z.boolean().optional()
})
const UpdateTask = CreateTask.partial()

class ZodValidationPipe<T> implements PipeTransform<unknown, T> {
  constructor(private readonly schema: z.ZodType<T>) {}

  transform(value: unknown): T {
    const parsed = this.schema.safeParse(value)
    if (parsed.success) return parsed.data
    throw new HttpException({ detail: z.prettifyError(parsed.error) }, 422)
  }
}

@Injectable()
class AuthGuard implements CanActivate {
  constructor(@Inject(JwtService) private readonly jwt: JwtService) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const request = context.switchToHttp().getRequest()
    const [type, token] = request.headers.authorization?.split(' ') ?? []
    if (type !== 'Bearer') throw new UnauthorizedException()
    try {
      request.user = await this.jwt.verifyAsync(token)
    } catch {
      throw new UnauthorizedException()
    }
    if (request.user.sub !== request.params.userId) throw new ForbiddenException()
    return true
  }
}

@Injectable()
class TasksService {
  constructor(@InjectRepository(Task) private readonly tasks: Repository<Task>) {}

  list(user_id: string): Promise<Task[]> {
    return this.tasks.find({ where: { user_id }, order: { id: 'DESC' } })
  }

  async get(user_id: string, id: string): Promise<Task> {
    const task = await this.tasks.findOneBy({ user_id, id })
    if (!task) throw new NotFoundException()
    return task
  }

  create(user_id: string, { completed = false, ...fields }: z.infer<typeof CreateTask>): Promise<Task> {
    const completed_at = completed ? new Date() : null
    return this.tasks.save(this.tasks.create({ user_id, id: uuidv7(), ...fields, completed, completed_at }))
  }

  async update(user_id: string, id: string, changes: z.infer<typeof UpdateTask>): Promise<Task> {
    const task = await this.get(user_id, id)
    const { completed = task.completed } = changes
    const completed_at = completed ? (task.completed_at ?? new Date()) : null
    return this.tasks.save(this.tasks.merge(task, changes, { completed_at }))
  }

  async toggle(user_id: string, id: string): Promise<Task> {
    const { completed } = await this.get(user_id, id)
    return this.update(user_id, id, { completed: !completed })
  }
}

@Controller('api/:userId/tasks')
@UseGuards(AuthGuard)
class TasksController {
  constructor(@Inject(TasksService) private readonly tasks: TasksService) {}

  @Get()
  list(@Param('userId') user: string) {
    return this.tasks.list(user)
  }

  @Post()
  create(
    @Param('userId') user: string,
    @Body(new ZodValidationPipe(CreateTask)) task: z.infer<typeof CreateTask>
  ) {
    return this.tasks.create(user, task)
  }

  @Get(':id')
  get(@Param('userId') user: string, @Param('id', ParseUUIDPipe) id: string) {
    return this.tasks.get(user, id)
  }

  @Patch(':id')
  update(
    @Param('userId') user: string,
    @Param('id', ParseUUIDPipe) id: string,
    @Body(new ZodValidationPipe(UpdateTask)) changes: z.infer<typeof UpdateTask>
  ) {
    return this.tasks.update(user, id, changes)
  }

  @Patch(':id/complete')
  toggle(@Param('userId') user: string, @Param('id', ParseUUIDPipe) id: string) {
    return this.tasks.toggle(user, id)
  }
}

@Module({
  imports: [
    TypeOrmModule.forRoot({ type: 'postgres', url: DATABASE_URL, entities: [Task], poolSize: 10 }),
    TypeOrmModule.forFeature([Task]),
    JwtModule.register({ secret: JWT_SECRET, verifyOptions: { algorithms: ['HS256'] } })
  ],
  controllers: [TasksController],
  providers: [TasksService]
})
class AppModule {}

const app = await NestFactory.create<NestFastifyApplication>(AppModule, new FastifyAdapter(), {
  logger: ['error', 'warn']
})
await app.listen(Number(PORT), '127.0.0.1')
console.log(`NestJS on ${PORT}`)
