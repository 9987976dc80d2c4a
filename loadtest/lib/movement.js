// The movement of a simulated driver: it drives to a goal at a speed that the service accepts.

const METRES_PER_DEGREE = 111320;
const SPEED_MPS = 9;

/** The centre and the radius of the city. */
export const CITY = { lat: 12.9716, lon: 77.5946, radiusM: 3000 };

/** Returns a random position in the city. */
export function somewhere() {
  const distance = CITY.radiusM * Math.sqrt(Math.random());
  const angle = 2 * Math.PI * Math.random();
  return {
    lat: CITY.lat + (distance * Math.cos(angle)) / METRES_PER_DEGREE,
    lon: CITY.lon + (distance * Math.sin(angle)) / (METRES_PER_DEGREE * Math.cos((CITY.lat * Math.PI) / 180)),
  };
}

export class Mover {
  constructor() {
    this.place = somewhere();
    this.goal = somewhere();
    this.at = Date.now();
  }

  /** Sets the goal. */
  headFor(place) {
    this.goal = { lat: place.lat, lon: place.lon };
  }

  /** Moves the driver and returns the current fix as the fields of a frame. */
  fix(now) {
    const eastM = METRES_PER_DEGREE * Math.cos((this.place.lat * Math.PI) / 180);
    const dLat = (this.goal.lat - this.place.lat) * METRES_PER_DEGREE;
    const dLon = (this.goal.lon - this.place.lon) * eastM;
    const distance = Math.hypot(dLat, dLon);
    const step = (SPEED_MPS * (now - this.at)) / 1000;
    this.at = now;
    if (distance <= step) {
      this.place = this.goal;
      this.goal = somewhere();
    } else {
      this.place = {
        lat: this.place.lat + ((dLat / distance) * step) / METRES_PER_DEGREE,
        lon: this.place.lon + ((dLon / distance) * step) / eastM,
      };
    }
    return {
      fixTime: new Date(now).toISOString(),
      lat: Number(this.place.lat.toFixed(6)),
      lon: Number(this.place.lon.toFixed(6)),
      accuracyM: 8,
      speedMps: SPEED_MPS,
    };
  }
}
