/** A driver on the real socket. It comes back after whatever ends the connection, as an app does. */
import WebSocket from 'ws';

import { eventually } from './eventually';
import type { Tracker } from './tracker';

/** What the driver has in hand. */
interface InHand {
    id: string;
    assignmentId: string;
    sellerOrderId: string;
    status: string;
}

interface Frame {
    type: string;
    ref?: string;
    code?: string;
    messageId?: string;
    deliveryId?: string;
    delivery?: InHand;
    deliveries?: InHand[];
}

const STANDS_AT = { lat: 12.972, lon: 77.595 };

export class Driver {
    /** `auto`: picks up and delivers whatever comes. `manual`: the test says what happens. */
    mode: 'auto' | 'manual' = 'auto';

    private socket: WebSocket | undefined;
    private readonly inHand = new Map<string, InHand>();
    private readonly answers = new Map<string, (frame: Frame) => void>();
    private counter = 0;
    private onDuty = true;
    private stopped = false;
    private beats: NodeJS.Timeout | undefined;

    private constructor(
        private readonly tracker: Tracker,
        readonly name: string,
        private readonly token: string,
    ) {}

    static async hire(tracker: Tracker, name: string): Promise<Driver> {
        const { id } = await tracker.api('POST', '/drivers', { name, phone: '+91 80 5550100', capacity: 20 });
        const { token } = await tracker.api('POST', `/drivers/${id}/tokens`, {});
        const driver = new Driver(tracker, name, token);
        driver.connect();
        await driver.setDuty(true);
        return driver;
    }

    /** Whether orders are wanted. Said again after each reconnect. */
    async setDuty(onDuty: boolean): Promise<void> {
        this.onDuty = onDuty;
        await eventually(`${this.name} said ${onDuty ? 'AVAILABLE' : 'OFFLINE'}`, async () => {
            const answer = await this.ask({ type: 'status', status: onDuty ? 'AVAILABLE' : 'OFFLINE' });
            return answer.type === 'ok';
        });
    }

    /** Waits until this driver has the order. */
    async has(sellerOrderId: string): Promise<InHand> {
        return eventually(`${this.name} has order ${sellerOrderId}`, () =>
            [...this.inHand.values()].find(one => one.sellerOrderId === sellerOrderId),
        );
    }

    /** Tells how a delivery goes, again and again until it is answered. */
    async update(delivery: InHand, status: string, more: object = {}): Promise<void> {
        const { id: deliveryId, assignmentId } = delivery;
        await eventually(`${this.name} told ${status}`, async () => {
            const answer = await this.ask({ type: 'delivery.update', deliveryId, assignmentId, status, ...more });
            return answer.type === 'ok' || answer.code === 'assignment_closed';
        });
        if (['DELIVERED', 'FAILED', 'REJECTED'].includes(status)) {
            this.inHand.delete(deliveryId);
        }
    }

    /** From now on `auto`: also what is in hand already. */
    resume(): void {
        this.mode = 'auto';
        for (const delivery of this.inHand.values()) {
            this.bring(delivery).catch(() => {});
        }
    }

    stop(): void {
        this.stopped = true;
        clearInterval(this.beats);
        this.socket?.terminate();
    }

    private connect(): void {
        if (this.stopped) {
            return;
        }
        const url = `${this.tracker.url.replace('http', 'ws')}/ws/driver`;
        const socket = new WebSocket(url, 'driver-tracker.v1', { headers: { authorization: `Bearer ${this.token}` } });
        socket.on('error', () => {});
        socket.on('close', () => {
            clearInterval(this.beats);
            setTimeout(() => this.connect(), 100);
        });
        socket.on('message', (data: Buffer) => this.take(JSON.parse(data.toString('utf8')) as Frame));
        this.socket = socket;
    }

    private take(frame: Frame): void {
        if (frame.messageId) {
            this.send({ type: 'ack', messageId: frame.messageId });
        }
        if (frame.ref) {
            this.answers.get(frame.ref)?.(frame);
        }
        switch (frame.type) {
            case 'welcome':
                this.begin(frame.deliveries ?? []);
                break;
            case 'assignment':
                this.accept(frame.delivery as InHand);
                break;
            case 'assignment.cancelled':
                this.inHand.delete(frame.deliveryId as string);
                break;
        }
    }

    private begin(deliveries: InHand[]): void {
        this.inHand.clear();
        const beat = () =>
            this.send({ type: 'heartbeat', seq: (this.counter += 1), fixTime: new Date().toISOString(), ...STANDS_AT });
        beat();
        this.beats = setInterval(beat, 1_000);
        this.send({ type: 'status', status: this.onDuty ? 'AVAILABLE' : 'OFFLINE' });
        deliveries.forEach(delivery => this.accept(delivery));
    }

    private accept(delivery: InHand): void {
        const isNew = !this.inHand.has(delivery.id);
        this.inHand.set(delivery.id, delivery);
        if (isNew && this.mode === 'auto') {
            this.bring(delivery).catch(() => {});
        }
    }

    private async bring(delivery: InHand): Promise<void> {
        if (delivery.status === 'ASSIGNED') {
            await this.update(delivery, 'PICKED_UP');
        }
        await this.update(delivery, 'DELIVERED');
    }

    /** Sends a frame and waits for its answer; fails when none comes, as after a lost connection. */
    private ask(frame: object): Promise<Frame> {
        const ref = `r${(this.counter += 1)}`;
        return new Promise<Frame>((resolve, reject) => {
            const timer = setTimeout(() => reject(new Error('no answer')), 2_000);
            this.answers.set(ref, answer => {
                clearTimeout(timer);
                resolve(answer);
            });
            this.send({ ...frame, ref });
        }).finally(() => this.answers.delete(ref));
    }

    private send(frame: object): void {
        if (this.socket?.readyState === WebSocket.OPEN) {
            this.socket.send(JSON.stringify(frame));
        }
    }
}
