// Where a simulated driver is: on the way to a place, at a speed that is believed.

const METRES_A_DEGREE = 111320;
const SPEED_MPS = 9;

/** The middle of the city, and how far it reaches. */
export const CITY = { lat: 12.9716, lon: 77.5946, radiusM: 3000 };

/** A random place in the city. */
export function somewhere() {
  const distance = CITY.radiusM * Math.sqrt(Math.random());
  const angle = 2 * Math.PI * Math.random();
  return {
    lat: CITY.lat + (distance * Math.cos(angle)) / METRES_A_DEGREE,
    lon: CITY.lon + (distance * Math.sin(angle)) / (METRES_A_DEGREE * Math.cos((CITY.lat * Math.PI) / 180)),
  };
}

export class Mover {
  constructor() {
    this.place = somewhere();
    this.goal = somewhere();
    this.at = Date.now();
  }

  /** From now on towards this place. */
  headFor(place) {
    this.goal = { lat: place.lat, lon: place.lon };
  }

  /** The fix of this moment, as the fields of a frame. */
  fix(now) {
    const eastM = METRES_A_DEGREE * Math.cos((this.place.lat * Math.PI) / 180);
    const dLat = (this.goal.lat - this.place.lat) * METRES_A_DEGREE;
    const dLon = (this.goal.lon - this.place.lon) * eastM;
    const distance = Math.hypot(dLat, dLon);
    const step = (SPEED_MPS * (now - this.at)) / 1000;
    this.at = now;
    if (distance <= step) {
      this.place = this.goal;
      this.goal = somewhere();
    } else {
      this.place = {
        lat: this.place.lat + ((dLat / distance) * step) / METRES_A_DEGREE,
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
